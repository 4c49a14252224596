"""What the tests of pages share: tabs of a browser that note all that goes wrong in them and all that they ask for."""

from __future__ import annotations

PHONE, DESKTOP = {"width": 360, "height": 800}, {"width": 1440, "height": 900}


class Tabs:
    """Tabs of one browser, closed together; `complaints` are of consoles, errors and dialogs, `requests` the addresses."""

    def __init__(self, browser):
        self.browser, self.contexts, self.complaints, self.requests = browser, [], [], []

    def open(self, address, size=DESKTOP, scheme="light"):
        """A tab of its own context that shows `address`."""
        context = self.browser.new_context(viewport=size, color_scheme=scheme)
        self.contexts.append(context)
        context.on("request", lambda request: self.requests.append(request.url.split("#")[0]))
        tab = context.new_page()
        tab.on("console", lambda message: self.complaints.append(message.text))
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        tab.goto(address)
        return tab

    def close(self):
        for context in self.contexts:
            context.close()
