// Before anything is painted: the colours somebody chose, where they differ from the system's.
try {
  const chosen = localStorage.getItem("edge-hub-theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch { /* no storage: the system's colours */ }
