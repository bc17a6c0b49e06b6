-- Files that two models label differently, each pair of models once.
SELECT a.path, a.label AS label, b.label AS other_label,
       a.model_id AS model_id, b.model_id AS other_model_id
FROM scored a JOIN scored b ON a.path = b.path AND a.image_id = b.image_id AND a.model_id < b.model_id
WHERE a.label <> b.label
ORDER BY a.path LIMIT 100;
