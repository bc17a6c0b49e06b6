-- Views of this session: `make sql` reads this file, beeline by -i conf/sql/views.sql.
CREATE OR REPLACE TEMPORARY VIEW scored AS
SELECT * EXCEPT (file_length, file_modified, status, reason, detail, dicom)
FROM eagle.cxr.predictions WHERE status = 'scored';

CREATE OR REPLACE TEMPORARY VIEW rejected AS
SELECT image_id, path, file_length, file_modified, reason, detail, model_id, run_id, scored_at
FROM eagle.cxr.predictions WHERE status = 'rejected';

-- For each file the row of the newest model: the one that began to score last.
CREATE OR REPLACE TEMPORARY VIEW latest AS
SELECT * EXCEPT (place) FROM (
  SELECT p.*, row_number() OVER (PARTITION BY p.path ORDER BY m.since DESC NULLS LAST) AS place
  FROM eagle.cxr.predictions p
  LEFT JOIN (SELECT model_id, min(started_at) AS since FROM eagle.cxr.runs WHERE job = 'score' GROUP BY model_id) m
    ON p.model_id = m.model_id
) WHERE place = 1;
