"""Pages: views compute what is shown, templates place it, and `render` joins the two."""
