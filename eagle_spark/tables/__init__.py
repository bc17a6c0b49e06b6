"""The warehouse: tables, branches, runs."""

from eagle_spark.tables.definitions import ACCEPTED as ACCEPTED
from eagle_spark.tables.definitions import EPOCHS as EPOCHS
from eagle_spark.tables.definitions import FEATURES as FEATURES
from eagle_spark.tables.definitions import IMAGES as IMAGES
from eagle_spark.tables.definitions import METRICS as METRICS
from eagle_spark.tables.definitions import PREDICTIONS as PREDICTIONS
from eagle_spark.tables.definitions import RUNS as RUNS
from eagle_spark.tables.definitions import TABLES as TABLES
from eagle_spark.tables.runs import Run as Run
from eagle_spark.tables.runs import RunRecord as RunRecord
from eagle_spark.tables.runs import StageTimer as StageTimer
from eagle_spark.tables.runs import versions as versions
from eagle_spark.tables.schema import DataFile as DataFile
from eagle_spark.tables.schema import Table as Table
from eagle_spark.tables.warehouse import Warehouse as Warehouse
