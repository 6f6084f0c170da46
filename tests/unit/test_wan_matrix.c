/* SPDX-License-Identifier: Apache-2.0
 * The table of links: both kinds of listing, and every mistake with its place and its fix. */
#include "config.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan/wan_matrix.h"
#include "support/leaks.h"

#define HEAD "src,dst,rtt_ms,gbit_per_s\n"

static struct ap_wan *good(const char *text)
{
    struct ap_wan *w;
    struct ap_error err = {0};
    cr_assert_eq(ap_wan_parse(text, strlen(text), "t.csv", &w, &err), AP_OK, "%s", err.text);
    return w;
}

AP_TEST(wan_matrix, undirected_and_unknown)
{
    struct ap_wan *w = good("# a comment\r\n" HEAD "\r\na,\"b\",10,2\r\n c c , a,,3.5e0\r\n");
    cr_assert_eq(w->n, 3);
    cr_expect_eq(w->directed, 0);
    cr_expect_str_eq(w->names[2], "c c");
    cr_expect(w->rate[1] == 2 && w->rate[3] == 2 && w->rtt[1] == 10 && w->rtt[3] == 10);
    cr_expect(w->rate[2] == 3.5 && w->rate[6] == 3.5 && isnan(w->rtt[2]) && isnan(w->usd[2]));
    cr_expect(w->rate[1 * 3 + 2] == 0 && w->rate[0] == 0);
    ap_wan_destroy(w);
}

AP_TEST(wan_matrix, directed_in_any_order_of_columns)
{
    struct ap_wan *w = good("egress_usd_per_gb,gbit_per_s,dst,src,rtt_ms\n0.02,1,b,a,5\n,2,a,b,6\n0,3,c,b,\n0,4,a,c,7");
    cr_assert_eq(w->n, 3);
    cr_expect_eq(w->directed, 1);
    /* sites appear as a, b, c: src is read before dst */
    cr_expect(w->rate[0 * 3 + 1] == 1 && w->rate[1 * 3 + 0] == 2 && w->rate[1 * 3 + 2] == 3 && w->rate[2 * 3 + 0] == 4);
    cr_expect(w->rate[2 * 3 + 1] == 0 && w->rate[0 * 3 + 2] == 0);
    cr_expect(w->usd[1] == 0.02 && isnan(w->usd[3]) && w->usd[5] == 0);
    ap_wan_destroy(w);
}

AP_TEST(wan_matrix, mistakes)
{
    static const struct {
        const char *text;
        long line, column;
        const char *says, *hint;
    } cases[] = {
        {"", 0, 0, "no header line", "begin with src,dst"},
        {"# only\n\n", 2, 0, "no header line", "begin with src,dst"},
        {HEAD, 0, 0, "not two sites", "one line for each link"},
        {"src,dst,rtt_ms,gbit\n", 1, 16, "there is no column 'gbit'", ""},
        {"src,dst,rtt_sm,gbit_per_s\n", 1, 9, "there is no column 'rtt_sm'", "did you mean 'rtt_ms'?"},
        {"src,dst,rtt_ms,src,gbit_per_s\n", 1, 16, "column 'src' stands twice", "once"},
        {"src,dst,rtt_ms\n", 1, 1, "the header has no column 'gbit_per_s'", "begin with src"},
        {"src,dst,rtt_ms,gbit_per_s,egress_usd_per_gb,x\n", 1, 45, "there is no column 'x'", "begin with src,dst"},
        {HEAD "a,b,1\n", 2, 5, "3 fields, but the header names 4 columns", "its comma"},
        {HEAD "a,b,1,2,3\n", 2, 9, "5 fields, but the header names 4 columns", ""},
        {HEAD "a,b,1,x\n", 2, 7, "gbit_per_s must be a number from 1e-06 to 1e+06, not 'x'", ""},
        {HEAD "a,b,1,nan\n", 2, 7, "gbit_per_s must be a number from 1e-06 to 1e+06, not 'nan'", ""},
        {HEAD "a,b,inf,1\n", 2, 5, "rtt_ms must be a number from 0 to 1e+06, not 'inf'", ""},
        {HEAD "a,b,1e999,1\n", 2, 5, "rtt_ms must be a number from 0 to 1e+06, not '1e999'", ""},
        {HEAD "a,b,1-2,1\n", 2, 5, "rtt_ms must be a number from 0 to 1e+06, not '1-2'", ""},
        {HEAD "a,b,0x10,1\n", 2, 5, "rtt_ms must be a number from 0 to 1e+06, not '0x10'", ""},
        {HEAD "a,b,-1,1\n", 2, 5, "rtt_ms must be a number from 0 to 1e+06, not '-1'", ""},
        {HEAD "a,b,1,-4\n", 2, 7, "gbit_per_s must be a number from 1e-06 to 1e+06, not '-4'", ""},
        {HEAD "a,b,1,0\n", 2, 7, "gbit_per_s must be a number from 1e-06 to 1e+06, not '0'", ""},
        {HEAD "a,b,1,2000000\n", 2, 7, "gbit_per_s must be a number from 1e-06 to 1e+06, not '2000000'", ""},
        {HEAD "a,b,1,\n", 2, 7, "a link without gbit_per_s", "leave the line out"},
        {HEAD ",b,1,1\n", 2, 1, "src must be a name of 1 to 63 bytes", ""},
        {HEAD "a,a,1,1\n", 2, 3, "a link from 'a' to itself", "leave the line out"},
        {HEAD "a,b,1,1\nb,c,1,1\na,b,2,1\n", 4, 1, "the link from 'a' is here a second time", "line 2"},
        {HEAD "\"a,b,1,1\n", 2, 1, "the quote is not closed", ""},
        {HEAD "\"a,x\",b,1,1\n", 2, 1, "src must be a name of 1 to 63 bytes without comma, quote", ""},
        {HEAD "a\x01,b,1,1\n", 2, 1, "and control characters, not 'a", ""},
        {HEAD "a,b\xff,1,1\n", 2, 4, "not a text in UTF-8", "save the file as UTF-8"},
        {HEAD "a,b,1,1\nc,d,1,1\n", 0, 0, "no path leads from site 'a' to site 'c'", "add the missing links"},
        {HEAD "a,b,1,1\nb,a,1,1\na,c,1,1\n", 0, 0, "no path leads from site 'c' to site 'a'", "single directions"},
        {HEAD "0123456789012345678901234567890123456789012345678901234567890123,b,1,1\n", 2, 1,
         "src must be a name of 1 to 63 bytes", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ap_wan *w = NULL;
        struct ap_error err = {0};
        cr_assert_eq(ap_wan_parse(cases[i].text, strlen(cases[i].text), "t.csv", &w, &err), AP_ERR_INPUT, "case %zu",
                     i);
        cr_expect_not_null(strstr(err.text, cases[i].says), "case %zu says: %s", i, err.text);
        cr_expect_not_null(strstr(err.hint, cases[i].hint), "case %zu hints: %s", i, err.hint);
        cr_expect(err.line == cases[i].line && err.column == cases[i].column, "case %zu at %ld:%ld", i, err.line,
                  err.column);
        cr_expect_str_eq(err.file, "t.csv");
        cr_expect_null(w);
    }
}

AP_TEST(wan_matrix, at_most_128_sites)
{
    for (int sites = 128; sites <= 129; sites++) {
        char *text = malloc(8192);
        struct ap_wan *w;
        struct ap_error err = {0};
        cr_assert_not_null(text);
        int at = snprintf(text, 8192, HEAD);
        for (int i = 1; i < sites; i++)
            at += snprintf(text + at, 8192 - (size_t)at, "hub,site%d,1,1\n", i);
        ap_status status = ap_wan_parse(text, (size_t)at, "t.csv", &w, &err);
        cr_expect_eq(status, sites == 128 ? AP_OK : AP_ERR_INPUT);
        if (status == AP_OK)
            ap_wan_destroy(w);
        else
            cr_expect(strstr(err.text, "more than 128 sites, at 'site128'") != NULL && err.line == 129, "%s", err.text);
        free(text);
    }
}
