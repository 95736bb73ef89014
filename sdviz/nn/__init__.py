"""Networks only: the noise predictor, the classifier, and the device they run on."""
