"use strict";
// Colours, and marks on what an answer has and the gold has not. Without this script the page says the same in plain text.

for (const item of document.querySelectorAll(".pairs > li")) {
  const gold = item.querySelector("pre.sql:not(.answer) code");
  const goldTokens = sqlTokens(gold.textContent);
  for (const code of item.querySelectorAll("pre.answer code")) {
    const text = code.textContent;
    if (text.length > MAX_COLOURED) continue;
    const tokens = sqlTokens(text);
    code.replaceChildren(...sqlNodes(tokens, differing(goldTokens, tokens)).flat(Infinity));
  }
  gold.replaceChildren(...sqlNodes(goldTokens, null).flat(Infinity));
}
