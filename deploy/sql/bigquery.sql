-- The remote function `pairscore(url, caption)` in BigQuery. See docs/sql-engines.md.
--
-- Replace, everywhere:
--   PROJECT     the Google Cloud project
--   REGION      of the data set, such as us or europe-west1
--   DATASET     where the function is to be
--   CONNECTION  the name of the connection, such as pairscore
--   RELAY_URL   the Cloud Run service described below, such as https://pairscore-relay-x7f2-ew.a.run.app
--
-- How the API's key gets there. BigQuery calls Cloud Run or Cloud Run functions only, and sends Google's identity
-- token in `Authorization`, where the API wants `Bearer ps_...`. So a relay is needed: a Cloud Run service of yours
-- that lets in the connection's service account and no one else, and passes each request on to
-- https://YOUR_API/v1/bigquery with `Authorization: Bearer ps_...` in place of what it got. docs/sql-engines.md has
-- one that is a few lines of nginx. BigQuery never sees the key.
--
-- Once, in a shell: the connection, and its right to call the relay. `bq show` says which service account it is.
--
--   bq mk --connection --location=REGION --project_id=PROJECT --connection_type=CLOUD_RESOURCE CONNECTION
--   bq show --format=prettyjson --connection PROJECT.REGION.CONNECTION
--   gcloud run services add-iam-policy-binding pairscore-relay --region=REGION --role=roles/run.invoker \
--     --member=serviceAccount:THE_ACCOUNT

-- max_batching_rows: 10,000 at most. Rows that are not scored within `timeout` (seconds, 55 at most) are asked for
-- again by BigQuery, which is no harm; shorter batches are ready sooner.
CREATE OR REPLACE FUNCTION `PROJECT.DATASET.pairscore`(url STRING, caption STRING) RETURNS JSON
REMOTE WITH CONNECTION `PROJECT.REGION.CONNECTION`
OPTIONS (
  endpoint = 'RELAY_URL',
  max_batching_rows = 1000,
  user_defined_context = [('timeout', '50')],
  description = 'How well a caption fits an image: similarity and cosine, or error and error_detail.'
);

-- Kept in a table: what a remote function gives is never cached, so that each query that calls it scores anew.
CREATE OR REPLACE TABLE `PROJECT.DATASET.scored` AS
SELECT id, url, caption, `PROJECT.DATASET.pairscore`(url, caption) AS outcome
FROM `PROJECT.DATASET.pairs`;

-- LAX_FLOAT64 and JSON_VALUE make NULL of JSON's null; FLOAT64 would end the query.
SELECT
  id,
  LAX_FLOAT64(outcome.similarity) AS similarity,
  LAX_FLOAT64(outcome.cosine) AS cosine,
  JSON_VALUE(outcome.error) AS error,
  JSON_VALUE(outcome.error_detail) AS error_detail
FROM `PROJECT.DATASET.scored`
ORDER BY similarity DESC;
