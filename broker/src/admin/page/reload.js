// A browser gives up what is under way when its machine's networks change, as they do where containers
// come and go. A page of which a part did not come would stay blank: it is loaded anew.
addEventListener('error', ({ target }) => {
  if (target instanceof HTMLScriptElement || target instanceof HTMLLinkElement) setTimeout(() => location.reload(), 1000);
}, true);
