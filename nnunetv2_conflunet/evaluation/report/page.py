"""The page of a report."""

from jinja2 import Environment

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
  h1 { font-size: 1.6rem; margin-bottom: 0; }
  h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #bbb; }
  h3 { font-size: 1rem; margin-bottom: .3rem; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem; }
  th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
  th:first-child, td:first-child { text-align: left; }
  thead th { border-bottom: 2px solid #444; }
  figure { margin: 1rem 0; }
  img { max-width: 100%; height: auto; }
  .scroll { overflow-x: auto; }
  .quiet { color: #555; font-size: .85rem; }
  .note { border-left: 4px solid #D55E00; padding-left: .7rem; }
  .key span { display: inline-block; padding: 0 .6rem; margin-right: .4rem; color: white; border-radius: .2rem; }
  @media print {
    body { max-width: none; margin: 0; font-size: 10pt; }
    figure, table, section { break-inside: avoid; }
    h2, h3, .key { break-after: avoid; }
    .scroll { overflow: visible; }
    table { font-size: 7.5pt; }
    th, td { padding: .1rem .35rem; }
    .key span { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="quiet">{{ subtitle }}</p>
{% for note in notes %}<p class="note">{{ note }}</p>
{% endfor %}
<h2>Metrics per case, mean ± standard deviation</h2>
{{ table(metrics) }}
<p class="quiet">Ratios in %. In parentheses the number of cases for which the metric is defined, where that is not
all of them.</p>
{% if tests %}<h2>Paired differences</h2>
{{ table(tests) }}
<p class="quiet">{{ tests_text }}</p>
{% endif %}
{% for figure in figures %}<h2>{{ figure.title }}</h2>
<figure><img src="{{ figure.source }}" alt="{{ figure.title }}"><figcaption class="quiet">{{ figure.text }}</figcaption>
</figure>
{% endfor %}
<h2>By confluence</h2>
{{ table(confluence) }}
<p class="quiet">Pooled over the lesions of all cases, ratios in %.</p>
{% if cases %}<h2>Worst and best cases by PQ</h2>
<p class="key">{% for name, colour, text in key %}
<span style="background: {{ colour }}">{{ name }}</span>{{ text }}&emsp;
{% endfor %}</p>
{% for case in cases %}<section>
<h3>{{ case.title }}</h3>
<p class="quiet">{{ case.text }}</p>
<figure><img src="{{ case.source }}" alt="{{ case.title }}"></figure>
</section>
{% endfor %}{% endif %}
</body>
</html>
"""
TABLE = """{% macro table(content) %}<div class="scroll"><table>
<thead><tr>{% for i in content.header %}<th>{{ i }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in content.rows %}<tr>{% for i in row %}<td>{{ i }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endmacro %}"""


def render_page(**content: object) -> str:
    """The HTML of a report; every text is escaped."""
    return Environment(autoescape=True, trim_blocks=True).from_string(TABLE + PAGE).render(**content)
