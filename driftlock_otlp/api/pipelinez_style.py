"""The style sheet of `/debug/pipelinez`, for light and dark screens."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --line: #e1e5ea; --text: #1b2430; --dim: #5d6b7b;
  --good: #14713f; --good-soft: #def3e6; --warn: #8a5300; --warn-soft: #fdeccc;
  --bad: #b3261e; --bad-soft: #fce1df; --idle: #4a5868; --idle-soft: #e8ecf0; --accent: #1f5fbf;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #11161c; --card: #191f27; --line: #2b343f; --text: #e4e9ef; --dim: #96a3b2;
    --good: #6bd39a; --good-soft: #15342450; --warn: #f2bb5b; --warn-soft: #4a360f70;
    --bad: #ff8f86; --bad-soft: #55201d80; --idle: #aab6c3; --idle-soft: #2a333d; --accent: #7fb0ff;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 14px/1.45 system-ui, sans-serif; }
header { display: flex; flex-wrap: wrap; align-items: center; gap: .4rem 1rem; padding: .9rem 1.5rem;
  background: var(--card); border-bottom: 1px solid var(--line); }
h1 { font-size: 1.05rem; margin: 0; }
h1 span { font-weight: 400; }
h2 { font-size: .95rem; margin: 0 0 .5rem; }
h3 { font-size: .75rem; font-weight: 500; margin: 0; color: var(--dim); }
nav { margin-left: auto; display: flex; gap: 1rem; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
main { padding: 1.2rem 1.5rem 3rem; display: grid; gap: 1.4rem; max-width: 1500px; margin: 0 auto; }
section { min-width: 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: .8rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .7rem .9rem; }
.card strong { display: block; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.card small, .dim { color: var(--dim); }
p { margin: .5rem 0 0; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .42rem .65rem; white-space: nowrap; vertical-align: top; }
th { font-size: .75rem; font-weight: 500; color: var(--dim); border-bottom: 1px solid var(--line); }
tbody tr + tr td { border-top: 1px solid var(--line); }
tbody tr:hover td { background: color-mix(in srgb, var(--idle-soft) 45%, transparent); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td .error, td .name { display: inline-block; max-width: 26rem; white-space: normal; overflow-wrap: anywhere; }
td .error { min-width: 18rem; }
td .name { min-width: 12rem; }
code { font: .92em ui-monospace, monospace; }
.pill { display: inline-block; padding: .05rem .55rem; border-radius: 99px; font-size: .82rem; white-space: nowrap; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad, .error { color: var(--bad); }
.idle { color: var(--idle); }
.pill.good { background: var(--good-soft); } .pill.warn { background: var(--warn-soft); }
.pill.bad { background: var(--bad-soft); } .pill.idle { background: var(--idle-soft); }
.bar { display: inline-block; width: 70px; height: .5rem; border-radius: 99px; background: var(--idle-soft);
  overflow: hidden; }
.bar span { display: block; height: 100%; background: var(--accent); }
"""
