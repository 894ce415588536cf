// Light or dark, before anything is painted: what the address asks for (?theme=dark), else what was
// chosen here before, else what the system says.
(() => {
  const asked = new URLSearchParams(location.search).get('theme');
  let kept = null;
  // Storage may be forbidden; then nothing is remembered.
  try { kept = localStorage.getItem('theme'); } catch {}
  const theme = [asked, kept].find((name) => name === 'light' || name === 'dark');
  if (theme) document.documentElement.dataset.theme = theme;
})();
