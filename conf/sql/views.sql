-- Views of this session: `make sql` reads this file, beeline by -i conf/sql/views.sql.
CREATE OR REPLACE TEMPORARY VIEW scored AS
SELECT image_id, path, label, confidence, probabilities, needs_review, mask, lung_area, model_id, run_id, scored_at
FROM eagle.cxr.predictions WHERE status = 'scored';

CREATE OR REPLACE TEMPORARY VIEW rejected AS
SELECT image_id, path, file_length, file_modified, reason, detail, model_id, run_id, scored_at
FROM eagle.cxr.predictions WHERE status = 'rejected';

-- The row of the model that began to score last, for each file.
CREATE OR REPLACE TEMPORARY VIEW latest AS
SELECT * EXCEPT (place) FROM (
  SELECT p.*, row_number() OVER (PARTITION BY p.path ORDER BY m.since DESC) AS place
  FROM eagle.cxr.predictions p
  JOIN (SELECT model_id, min(scored_at) AS since FROM eagle.cxr.predictions GROUP BY model_id) m
    ON p.model_id = m.model_id
) WHERE place = 1;
