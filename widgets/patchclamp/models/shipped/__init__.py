"""Small trained models that come with the package, each beside the script that trained it."""
