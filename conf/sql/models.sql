-- Where two models call the same file by different names, each pair once.
SELECT a.path, a.label AS one, b.label AS other, a.model_id AS one_model, b.model_id AS other_model
FROM scored a JOIN scored b ON a.path = b.path AND a.image_id = b.image_id AND a.model_id < b.model_id
WHERE a.label <> b.label
ORDER BY a.path LIMIT 100;
