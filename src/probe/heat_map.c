/* SPDX-License-Identifier: Apache-2.0
 * SVG of heat maps. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/strbuf.h"
#include "probe/heat_map.h"

#define NUMBERS_MAX 20 /* with more labels cells hold no numbers */
#define LABELS_MAX  64 /* with more of them only some are written */
#define HEAD        84
#define LEGEND      58
#define GAP         36
#define SCALE_STEPS 48
#define LEAST_RANGE 2.0 /* of a scale, largest over smallest */

/* What the picture is made of, in pixels. */
struct shape {
    int n;
    double cell, margin, panel, label_size, number_size;
};

struct scale {
    double low, high; /* logarithms */
    int reversed;
};

/* Dark blue over teal to light yellow: the order is the same in black and white and for colour-blind eyes. */
static void colour(double x, int rgb[3])
{
    static const double stops[][3] = {{253, 231, 160}, {181, 222, 122}, {88, 190, 126}, {33, 145, 140},
                                      {46, 100, 142},  {62, 62, 137},   {52, 10, 84}};
    int last = (int)(sizeof stops / sizeof stops[0]) - 1;
    x = fmin(fmax(x, 0), 1) * last;
    int i = (int)fmin(floor(x), last - 1);
    for (int k = 0; k < 3; k++)
        rgb[k] = (int)lround(stops[i][k] + (x - i) * (stops[i + 1][k] - stops[i][k]));
}

static double place(const struct scale *s, double value)
{
    double x = s->high > s->low ? (log(value) - s->low) / (s->high - s->low) : 0.5;
    return s->reversed ? 1 - x : x;
}

static void add_text(struct ap_strbuf *b, const char *text)
{
    for (; *text != '\0'; text++) {
        const char *as = *text == '<' ? "&lt;" : *text == '>' ? "&gt;" : *text == '&' ? "&amp;" : NULL;
        if (as != NULL)
            ap_strbuf_add(b, as);
        else
            ap_strbuf_add_bytes(b, (unsigned char)*text < 32 ? " " : text, 1);
    }
}

static const char *number(double v, char buf[24])
{
    snprintf(buf, 24,
             v >= 99.5      ? "%.0f"
             : v >= 9.95    ? "%.1f"
             : v >= 0.0995  ? "%.2f"
             : v >= 0.00995 ? "%.3f"
                            : "%.1e",
             v);
    return buf;
}

static struct scale scale_of(const struct ap_heat_map *m, int n)
{
    struct scale s = {INFINITY, -INFINITY, m->low_is_good};
    for (int i = 0; i < n * n; i++)
        if (m->values[i] > 0) {
            s.low = fmin(s.low, log(m->values[i]));
            s.high = fmax(s.high, log(m->values[i]));
        }
    /* What is nearly the same is to look so. */
    double missing = log(LEAST_RANGE) - (s.high - s.low);
    if (s.high >= s.low && missing > 0) {
        s.low -= missing / 2;
        s.high += missing / 2;
    }
    return s;
}

static void add_cells(struct ap_strbuf *b, const struct shape *sh, const struct ap_heat_map *m, const struct scale *s)
{
    char buf[24];
    for (int i = 0; i < sh->n * sh->n; i++) {
        double x = (i % sh->n) * sh->cell, y = (i / sh->n) * sh->cell, v = m->values[i];
        if (!(v > 0)) {
            ap_strbuf_addf(b, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"#f0f0f0\"/>\n", x, y,
                           sh->cell, sh->cell);
            continue;
        }
        int rgb[3];
        colour(place(s, v), rgb);
        ap_strbuf_addf(b, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"#%02x%02x%02x\"/>\n", x, y,
                       sh->cell, sh->cell, rgb[0], rgb[1], rgb[2]);
        if (sh->n > NUMBERS_MAX)
            continue;
        int dark = 299 * rgb[0] + 587 * rgb[1] + 114 * rgb[2] < 140000;
        ap_strbuf_addf(b,
                       "<text x=\"%.2f\" y=\"%.2f\" font-size=\"%.1f\" text-anchor=\"middle\" fill=\"%s\">%s</text>\n",
                       x + sh->cell / 2, y + sh->cell / 2 + sh->number_size * 0.36, sh->number_size,
                       dark ? "#ffffff" : "#101010", number(v, buf));
    }
}

/* Rows to the left, columns above, turned. */
static void add_labels(struct ap_strbuf *b, const struct shape *sh, const char *const *labels)
{
    int step = (sh->n + LABELS_MAX - 1) / LABELS_MAX;
    for (int i = 0; i < sh->n; i += step) {
        double middle = (i + 0.5) * sh->cell;
        ap_strbuf_addf(b, "<text x=\"-6\" y=\"%.2f\" font-size=\"%.1f\" text-anchor=\"end\">",
                       middle + sh->label_size * 0.36, sh->label_size);
        add_text(b, labels[i]);
        ap_strbuf_addf(b, "</text>\n<text transform=\"translate(%.2f,-6) rotate(-55)\" font-size=\"%.1f\">",
                       middle + sh->label_size * 0.36, sh->label_size);
        add_text(b, labels[i]);
        ap_strbuf_add(b, "</text>\n");
    }
}

static void add_legend(struct ap_strbuf *b, const struct shape *sh, const struct ap_heat_map *m, const struct scale *s)
{
    char low[24], high[24], middle[24];
    double width = sh->n * sh->cell, y = width + 16, step = width / SCALE_STEPS;
    if (!(s->high >= s->low))
        return;
    for (int i = 0; i < SCALE_STEPS; i++) {
        int rgb[3];
        double x = (i + 0.5) / SCALE_STEPS;
        colour(s->reversed ? 1 - x : x, rgb);
        ap_strbuf_addf(b, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"12\" fill=\"#%02x%02x%02x\"/>\n",
                       i * step, y, step + 0.3, rgb[0], rgb[1], rgb[2]);
    }
    number(exp(s->low), low);
    number(exp(s->high), high);
    number(exp((s->low + s->high) / 2), middle);
    ap_strbuf_addf(b,
                   "<g font-size=\"11\"><text x=\"0\" y=\"%.2f\">%s</text><text x=\"%.2f\" y=\"%.2f\" "
                   "text-anchor=\"middle\">%s</text><text x=\"%.2f\" y=\"%.2f\" text-anchor=\"end\">%s ",
                   y + 27, low, width / 2, y + 27, middle, width, y + 27, high);
    add_text(b, m->unit);
    ap_strbuf_add(b, "</text></g>\n");
}

static struct shape shape_of(int n, const char *const *labels)
{
    size_t longest = 0;
    struct shape sh = {.n = n};
    for (int i = 0; i < n; i++)
        longest = strlen(labels[i]) > longest ? strlen(labels[i]) : longest;
    sh.cell = n <= NUMBERS_MAX ? fmin(fmax(420.0 / n, 40), 90) : fmax(720.0 / n, 2);
    sh.label_size = fmin(13, fmax(sh.cell * ((n + LABELS_MAX - 1) / LABELS_MAX) * 0.9, 6));
    sh.number_size = 12.5;
    sh.margin = 16 + 0.62 * sh.label_size * (double)longest;
    sh.panel = fmax(sh.margin + n * sh.cell + 0.6 * sh.margin, 260);
    return sh;
}

char *ap_heat_map_svg(const char *title, const char *note, int n, const char *const *labels,
                      const struct ap_heat_map *maps, int map_count)
{
    struct ap_strbuf b = {0};
    struct shape sh = shape_of(n, labels);
    double top = HEAD + sh.margin, width = map_count * sh.panel + (map_count - 1) * GAP + 24;
    double height = top + n * sh.cell + LEGEND;
    width = fmax(width, 40 + 6.2 * (double)strlen(note));
    ap_strbuf_addf(
        &b,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" "
        "width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
        "font-family=\"Helvetica,Arial,sans-serif\" fill=\"#101010\">\n"
        "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n<text x=\"16\" y=\"28\" font-size=\"18\" "
        "font-weight=\"bold\">",
        width, height, width, height);
    add_text(&b, title);
    ap_strbuf_add(&b, "</text>\n<text x=\"16\" y=\"48\" font-size=\"12\" fill=\"#505050\">");
    add_text(&b, note);
    ap_strbuf_add(&b, "</text>\n");
    for (int k = 0; k < map_count; k++) {
        struct scale s = scale_of(&maps[k], n);
        double left = 12 + k * (sh.panel + GAP);
        ap_strbuf_addf(&b, "<text x=\"%.2f\" y=\"%d\" font-size=\"14\">", left + 4, HEAD - 10);
        add_text(&b, maps[k].title);
        ap_strbuf_addf(&b, "</text>\n<g transform=\"translate(%.2f,%.2f)\">\n", left + sh.margin, top);
        add_cells(&b, &sh, &maps[k], &s);
        add_labels(&b, &sh, labels);
        add_legend(&b, &sh, &maps[k], &s);
        ap_strbuf_add(&b, "</g>\n");
    }
    ap_strbuf_add(&b, "</svg>\n");
    return ap_strbuf_take(&b);
}
