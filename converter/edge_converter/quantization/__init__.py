"""Float `.tflite` files in other number formats, without labels and without TensorFlow."""
