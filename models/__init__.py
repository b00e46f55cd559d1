"""Models with their data, written with the face of the library alone: examples, and subjects of the tests."""
