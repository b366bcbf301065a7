"""A small cohort of slides to try bagline on, drawn with the tissue of a picture that scikit-image carries."""
