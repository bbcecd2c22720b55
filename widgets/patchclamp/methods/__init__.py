"""Published algorithms: an experiment in, results out; see each module for idea and source."""
