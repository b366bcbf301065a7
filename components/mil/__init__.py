"""Bag models: heads, encoders, bags as tf.data, streaming inference. Importing it registers every Keras class."""

from components.mil import quiet as quiet  # noqa: I001 - before anything that imports TensorFlow
from components.mil import model as model
