"""From raw videos to the training set: the data set construction of arXiv 2410.13830, one stage after another."""
