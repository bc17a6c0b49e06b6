from eagle_spark.api import assign_splits as assign_splits
from eagle_spark.api import drift as drift
from eagle_spark.api import evaluate as evaluate
from eagle_spark.api import find_leaks as find_leaks
from eagle_spark.api import load_model as load_model
from eagle_spark.api import predict_udf as predict_udf
from eagle_spark.api import read_image as read_image
from eagle_spark.api import read_images as read_images
from eagle_spark.api import register_udf as register_udf
from eagle_spark.api import score as score
from eagle_spark.errors import ImageRejectedError as ImageRejectedError
from eagle_spark.metrics.evaluation import Metrics as Metrics
from eagle_spark.model.predictor import Model as Model
from eagle_spark.model.predictor import Prediction as Prediction

__version__: str
__all__: list[str]
