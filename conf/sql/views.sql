-- Temporary views of a session. `make sql` creates those whose tables exist, see select_views.py.
-- For beeline: -i conf/sql/views.sql. `rejects` comes last: without preprocess there is no `images`.
CREATE OR REPLACE TEMPORARY VIEW scored AS
SELECT * EXCEPT (file_length, file_modified, status, reason, detail, dicom)
FROM eagle.cxr.predictions WHERE status = 'scored';

CREATE OR REPLACE TEMPORARY VIEW rejected AS
SELECT image_id, path, file_length, file_modified, reason, detail, model_id, run_id, scored_at
FROM eagle.cxr.predictions WHERE status = 'rejected';

-- Per file the row of the newest model: the model whose first run started last.
CREATE OR REPLACE TEMPORARY VIEW latest AS
SELECT * EXCEPT (place) FROM (
  SELECT p.*, row_number() OVER (PARTITION BY p.path ORDER BY m.since DESC NULLS LAST) AS place
  FROM eagle.cxr.predictions p
  LEFT JOIN (SELECT model_id, min(started_at) AS since FROM eagle.cxr.runs WHERE job = 'score' GROUP BY model_id) m
    ON p.model_id = m.model_id
) WHERE place = 1;

-- Files and workbook rows that preprocess rejected; a table of this name in version 0.1.
CREATE OR REPLACE TEMPORARY VIEW rejects AS
SELECT path, label, source, reason, detail, run_id, ingested_at AS rejected_at
FROM eagle.cxr.images WHERE status = 'rejected';
