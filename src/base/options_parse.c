/* SPDX-License-Identifier: Apache-2.0
 * Numbers as people write them in job files: 4096, 4_096, 16Ki, 1.5M, 1e6, 3e-4. */
#include "config.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/options_internal.h"

#define NUMBER_MAX_BYTES 48

/* Factor of a size suffix at s, 1 where s is empty, 0 where it is something else. */
static double suffix_factor(const char *s)
{
    static const char letters[] = "kMGT";
    if (*s == '\0')
        return 1;
    const char *at = strchr(letters, *s == 'K' ? 'k' : *s);
    if (at == NULL)
        return 0;
    int power = (int)(at - letters) + 1;
    if (s[1] == '\0')
        return pow(1000, power);
    if (s[1] == 'i' && s[2] == '\0')
        return pow(1024, power);
    return 0;
}

/* Copy without the underscores between digits; -1 for an odd character or a text too long. */
static int clean(const char *text, char out[NUMBER_MAX_BYTES])
{
    size_t n = 0;
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '_' && p > text && p[-1] >= '0' && p[-1] <= '9' && p[1] >= '0' && p[1] <= '9')
            continue;
        if (strchr("0123456789+-.eEkKMGTi", *p) == NULL || n + 1 >= NUMBER_MAX_BYTES)
            return -1;
        out[n++] = *p;
    }
    out[n] = '\0';
    return n > 0 ? 0 : -1;
}

int ap_option_parse_real(const char *text, double *v_p)
{
    char s[NUMBER_MAX_BYTES];
    if (clean(text, s) != 0)
        return -1;
    char *end;
    double v = strtod(s, &end);
    if (end == s || *end != '\0' || !isfinite(v))
        return -1;
    *v_p = v;
    return 0;
}

int ap_option_parse_int(const char *text, int64_t *v_p)
{
    char s[NUMBER_MAX_BYTES];
    if (clean(text, s) != 0)
        return -1;
    char *end;
    errno = 0;
    long long exact = strtoll(s, &end, 10);
    if (end != s && errno == 0 && *end == '\0') {
        *v_p = exact;
        return 0;
    }
    double v = strtod(s, &end);
    double factor = end == s ? 0 : suffix_factor(end);
    v *= factor;
    /* Beyond 2^53 a double has no fraction to lose, but neighbours are lost: such numbers need all digits. */
    if (factor == 0 || v != floor(v) || fabs(v) > 0x1p53)
        return -1;
    *v_p = (int64_t)v;
    return 0;
}

int ap_option_parse_uint(const char *text, uint64_t *v_p)
{
    char s[NUMBER_MAX_BYTES];
    int64_t small;
    if (clean(text, s) != 0 || s[0] == '-')
        return -1;
    char *end;
    errno = 0;
    unsigned long long exact = strtoull(s, &end, 10);
    if (end != s && errno == 0 && *end == '\0') {
        *v_p = exact;
        return 0;
    }
    if (ap_option_parse_int(text, &small) != 0 || small < 0)
        return -1;
    *v_p = (uint64_t)small;
    return 0;
}

int ap_options_each_choice(const char *choices, int (*f)(void *ctx, int index, const char *word), void *ctx)
{
    char word[64];
    for (int index = 0; choices != NULL; index++) {
        const char *bar = strchr(choices, '|');
        size_t n = bar != NULL ? (size_t)(bar - choices) : strlen(choices);
        if (n >= sizeof word)
            n = sizeof word - 1;
        memcpy(word, choices, n);
        word[n] = '\0';
        int rc = f(ctx, index, word);
        if (rc != 0)
            return rc;
        choices = bar != NULL ? bar + 1 : NULL;
    }
    return 0;
}
