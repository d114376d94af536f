"""Sphinx extension: launch and source buttons lead to files that are in the repository, and stay away without one.

Pages are built from book/_executed/<work>/<name>.ipynb; what the repository holds is notebooks/<work>/<name>.ipynb.
"""

BUILT, KEPT = "book/_executed/", "notebooks/"
NEED_A_REPOSITORY = ("use_repository_button", "use_source_button", "use_edit_page_button", "use_issues_button")
LEAD_TO_THE_FILE = {"launch-buttons", "source-file-button", "source-edit-button"}


def setup(app):
    """Called by Sphinx."""
    app.connect("config-inited", prepare, priority=100)  # before the theme reads its options
    app.connect("html-page-context", correct, priority=900)  # after the theme has made its buttons
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def prepare(app, config):
    """Switch off what the repository's address, or its absence, makes impossible."""
    options = config.html_theme_options
    url = options.get("repository_url")
    if not url:
        options["launch_buttons"] = {}
        options.update(dict.fromkeys(NEED_A_REPOSITORY, False))
    elif "github.com" not in url:  # Colab opens nothing else, and the theme warns on every page
        options.get("launch_buttons", {}).pop("colab_url", None)


def correct(app, pagename, templatename, context, doctree):
    """Point the buttons of one page to the source notebook; a page made at build time has no file to point to."""
    is_generated = pagename.removeprefix("_executed/").startswith("_") or doctree is None
    context["header_buttons"] = [
        corrected
        for button in context.get("header_buttons", [])
        if (corrected := _corrected(button, LEAD_TO_THE_FILE if is_generated else set()))
    ]


def _corrected(button, unwanted):
    """The button, or group of buttons, with addresses of source notebooks; None where nothing is left."""
    if button.get("label") in unwanted:
        return None
    if "buttons" in button:
        inside = [kept for inner in button["buttons"] if (kept := _corrected(inner, unwanted))]
        return button | {"buttons": inside} if inside else None
    return button | {"url": button["url"].replace(BUILT, KEPT)} if "url" in button else button
