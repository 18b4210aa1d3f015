"use strict";

(() => {
  const tools = window.eclipsjax;
  tools.data = tools.read("eclipsjax-maps");
  const begin = (id, start) => {
    const root = document.getElementById(id);
    return root ? start(root, tools.data) : null;
  };
  tools.relief = begin("eclipsjax-relief", tools.startRelief);
  tools.profileTool = begin("eclipsjax-profile", tools.startProfile);
})();
