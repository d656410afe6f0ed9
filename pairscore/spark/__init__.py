"""Scoring inside Spark, for whoever has image URLs and captions in a DataFrame.

    from pairscore.spark import score_dataframe

    score_dataframe(df, url="image_url", caption="caption").write.parquet("scored")

Executors need `pairscore` installed; Spark comes with the extra `pairscore[spark]`, or is the
cluster's own. See docs/spark.md.
"""

from pairscore.spark.columns import make_score_udf, score_dataframe, score_udf

__all__ = ["make_score_udf", "score_dataframe", "score_udf"]
