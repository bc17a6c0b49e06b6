-- Distribution of the predictions of each run: classes, confidence, lung area.
SELECT run_id, label, count(*) AS images,
       round(count(*) / sum(count(*)) OVER (PARTITION BY run_id), 3) AS share,
       round(percentile_approx(confidence, 0.5), 3) AS median_confidence,
       round(percentile_approx(lung_area, 0.5), 3) AS median_lung_area
FROM scored
GROUP BY run_id, label
ORDER BY run_id DESC, label;
