-- Predictions of the newest model by class, and rejected files by reason.
SELECT status, coalesce(label, reason) AS label_or_reason, count(*) AS images,
       round(avg(confidence), 3) AS confidence
FROM latest
GROUP BY ALL ORDER BY status DESC, images DESC;
