/** Dark or light; `public/theme.js` sets it before the first paint. */
class Theme {
  dark = $state(document.documentElement.dataset.theme === 'dark');

  toggle() {
    this.dark = !this.dark;
    this.#show();
    try { localStorage.setItem('lifeboat-theme', this.dark ? 'dark' : 'light'); } catch { /* storage is switched off */ }
  }

  #show() {
    document.documentElement.dataset.theme = this.dark ? 'dark' : 'light';
  }

  constructor() {
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', (event) => {
      try { if (localStorage.getItem('lifeboat-theme')) return; } catch { /* storage is switched off */ }
      this.dark = event.matches;
      this.#show();
    });
  }
}
export const theme = new Theme();
