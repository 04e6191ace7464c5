// Sets the colours that were chosen before anything is drawn. Without a choice the system decides.
(() => {
  try {
    const theme = localStorage.getItem('daybook-theme')
    if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme
  } catch {
    // A browser that keeps nothing shows the system's colours.
  }
})()
