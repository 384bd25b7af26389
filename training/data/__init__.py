"""From a file or a data set of the hub to examples, their split, and the rows of the trainer."""
