// Before the first paint: the chosen theme, else the system's. A file of its own, since scripts in the page are refused.
(() => {
  let chosen = null;
  try { chosen = localStorage.getItem('lifeboat-theme'); } catch { /* storage is switched off */ }
  const dark = chosen ? chosen === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
})();
