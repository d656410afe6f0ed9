-- The external function `pairscore(url, caption)` in Snowflake. See docs/sql-engines.md.
--
-- Replace, everywhere:
--   GATEWAY_URL  the resource of your API gateway, such as https://a1b2c3.execute-api.eu-west-1.amazonaws.com/v1/pairs
--   ROLE_ARN     the IAM role that Snowflake takes on to call it, such as arn:aws:iam::123456789012:role/snowflake
--   A_ROLE       who may use the function
--
-- How the API's key gets there. Snowflake does not call the API itself but an API gateway, and signs its requests
-- for that gateway in `Authorization`, where the API wants `Bearer ps_...`. The gateway checks the signature, and
-- passes POST and GET on to https://YOUR_API/v1/snowflake with a header of its own, the fixed value
-- `Authorization: Bearer ps_...`. Snowflake never sees the key; do not put it into HEADERS, which is stored in the
-- function's definition. The gateway must leave the headers `sf-*` and `Content-Encoding` as they are.
--
-- This is for Amazon API Gateway. With API_PROVIDER = azure_api_management or google_api_gateway other fields take
-- the place of API_AWS_ROLE_ARN; the function is the same.

CREATE OR REPLACE API INTEGRATION pairscore_api
  API_PROVIDER = aws_api_gateway
  API_AWS_ROLE_ARN = 'ROLE_ARN'
  API_ALLOWED_PREFIXES = ('GATEWAY_URL')
  ENABLED = TRUE;

-- Whom the role has to trust: API_AWS_IAM_USER_ARN, with API_AWS_EXTERNAL_ID.
DESCRIBE INTEGRATION pairscore_api;

-- HEADERS: seconds until the API answers 202, 20 at most, less than the gateway's own limit. MAX_BATCH_ROWS: 10,000
-- at most. COMPRESSION: GZIP, DEFLATE and NONE are understood; take NONE where the gateway spoils what is compressed.
CREATE OR REPLACE EXTERNAL FUNCTION pairscore(url VARCHAR, caption VARCHAR)
  RETURNS VARIANT
  CALLED ON NULL INPUT
  VOLATILE
  COMMENT = 'How well a caption fits an image: similarity and cosine, or error and error_detail.'
  API_INTEGRATION = pairscore_api
  HEADERS = ('timeout' = '20')
  MAX_BATCH_ROWS = 1000
  COMPRESSION = GZIP
  AS 'GATEWAY_URL';

GRANT USAGE ON FUNCTION pairscore(VARCHAR, VARCHAR) TO ROLE A_ROLE;

-- Kept in a table, so that no query scores the same rows anew.
CREATE OR REPLACE TABLE scored AS
SELECT id, url, caption, pairscore(url, caption) AS outcome
FROM pairs;

SELECT
  id,
  outcome:similarity::DOUBLE AS similarity,
  outcome:cosine::DOUBLE AS cosine,
  outcome:error::VARCHAR AS error,
  outcome:error_detail::VARCHAR AS error_detail
FROM scored
ORDER BY similarity DESC;
