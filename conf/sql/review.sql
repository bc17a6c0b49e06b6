-- What a person has to look at, the least certain first.
SELECT path, label, round(confidence, 3) AS confidence, round(lung_area, 3) AS lung_area
FROM latest
WHERE needs_review
ORDER BY confidence LIMIT 20;
