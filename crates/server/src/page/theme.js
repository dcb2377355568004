// Applies the chosen theme before the first paint. Without a choice the system's theme holds.
try {
  const theme = localStorage.getItem("downshift.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  if (localStorage.getItem("downshift.sidebar") === "hidden") document.documentElement.dataset.sidebar = "hidden";
} catch {
  // A browser that keeps nothing follows the system.
}
