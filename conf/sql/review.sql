-- Images that need review, the most novel first.
SELECT path, label, round(confidence, 3) AS confidence, round(novelty, 2) AS novelty,
       array_join(review_reasons, ', ') AS why
FROM latest
WHERE needs_review
ORDER BY novelty DESC, confidence LIMIT 20;
