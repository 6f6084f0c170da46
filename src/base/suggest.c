/* SPDX-License-Identifier: Apache-2.0
 * Nearest word by edit distance. */
#include "config.h"

#include <ctype.h>
#include <string.h>

#include "base/suggest.h"

#define WORD_MAX_BYTES 64

static int same(char a, char b)
{
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

static int min2(int a, int b)
{
    return a < b ? a : b;
}

int ap_suggest_distance(const char *a, const char *b)
{
    int n = (int)strnlen(a, WORD_MAX_BYTES + 1), m = (int)strnlen(b, WORD_MAX_BYTES + 1);
    if (n > WORD_MAX_BYTES || m > WORD_MAX_BYTES)
        return WORD_MAX_BYTES;
    int row[3][WORD_MAX_BYTES + 1]; /* rows i-2, i-1, i of the table, by i mod 3 */
    for (int j = 0; j <= m; j++)
        row[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *now = row[i % 3], *up = row[(i + 2) % 3], *up2 = row[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= m; j++) {
            now[j] = min2(up[j - 1] + !same(a[i - 1], b[j - 1]), min2(up[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1]))
                now[j] = min2(now[j], up2[j - 2] + 1);
        }
    }
    return row[n % 3][m];
}

void ap_suggest_consider(struct ap_suggest *s, const char *typed, const char *candidate)
{
    int d = ap_suggest_distance(typed, candidate);
    if (s->best == NULL || d < s->distance) {
        s->best = candidate;
        s->distance = d;
    }
}

const char *ap_suggest_result(const struct ap_suggest *s, const char *typed)
{
    if (s->best == NULL)
        return NULL;
    size_t longer = strlen(typed) > strlen(s->best) ? strlen(typed) : strlen(s->best);
    int allowed = (int)(longer + 2) / 3;
    return s->distance <= allowed ? s->best : NULL;
}

const char *ap_suggest_nearest(const char *typed, const char *const *words, size_t n)
{
    struct ap_suggest s = {NULL, 0};
    for (size_t i = 0; i < n; i++)
        ap_suggest_consider(&s, typed, words[i]);
    return ap_suggest_result(&s, typed);
}
