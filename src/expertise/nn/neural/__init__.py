"""How NeuralMixtureRegressor and NeuralMixtureClassifier are made; `expertise.nn.estimators` shows them."""
