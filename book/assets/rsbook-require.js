// Explorers ask require.js for the module "anywidget": it lies in vendor/, however deep the page.
requirejs.config({ baseUrl: document.documentElement.dataset.content_root + "_static/vendor" });
