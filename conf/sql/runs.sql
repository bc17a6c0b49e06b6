-- The last 30 runs of score: counts, exit code, drift, throughput, seconds by stage. The keys `shift`
-- and `shift_from_nights` are those of version 0.1.
SELECT run_id, started_at,
       CAST(get_json_object(result, '$.scored') AS INT) AS scored,
       CAST(get_json_object(result, '$.rejected') AS INT) AS rejected,
       CAST(get_json_object(result, '$.already_rejected') AS INT) AS already_rejected,
       CAST(get_json_object(result, '$.masks_failed') AS INT) AS masks_failed,
       CAST(get_json_object(result, '$.exit_code') AS INT) AS exit_code,
       CAST(coalesce(get_json_object(result, '$.drift'),
                     get_json_object(result, '$.shift')) AS DOUBLE) AS drift,
       CAST(coalesce(get_json_object(result, '$.drift_from_recent_runs'),
                     get_json_object(result, '$.shift_from_nights')) AS DOUBLE) AS drift_from_recent_runs,
       get_json_object(result, '$.flagged') AS flagged,
       CAST(get_json_object(result, '$.images_per_second') AS DOUBLE) AS images_per_second,
       get_json_object(result, '$.stage_seconds') AS stage_seconds
FROM eagle.cxr.runs
WHERE job = 'score'
ORDER BY started_at DESC LIMIT 30;
