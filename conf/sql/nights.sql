-- The last nights: how many, how fast, and where the seconds went.
SELECT run_id, started_at,
       CAST(get_json_object(result, '$.scored') AS INT) AS scored,
       CAST(get_json_object(result, '$.rejected') AS INT) AS rejected,
       CAST(get_json_object(result, '$.images_per_second') AS DOUBLE) AS images_per_second,
       get_json_object(result, '$.stage_seconds') AS stage_seconds
FROM eagle.cxr.runs
WHERE job = 'score'
ORDER BY started_at DESC LIMIT 30;
