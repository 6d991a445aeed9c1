"""The application's endpoints, by subject."""
