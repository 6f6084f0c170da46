/* SPDX-License-Identifier: Apache-2.0
 * Manual pages to text: each construct with the text it must give. */
#include "config.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "prep/roff.h"
#include "support/leaks.h"

static void expect(const char *roff, const char *want)
{
    struct ap_buf out = {0};
    cr_assert_eq(ap_roff_to_text(roff, strlen(roff), &out, NULL, NULL), AP_OK);
    ap_buf_char(&out, '\0');
    cr_assert_str_eq(out.data, want, "from:\n%s\ngot:\n%s\nwant:\n%s", roff, out.data, want);
    ap_buf_free(&out);
}

AP_TEST(roff, paragraphs_headings_and_fonts)
{
    expect(
        ".\\\" comment\n.TH LS 1 2024 x\n.SH NAME\nls \\- list\n.SH \"SEE ALSO\"\n.PP\n.BR cp (1),\n.IR a \" b\" c\n",
        "LS(1)\n\nNAME\nls - list\n\nSEE ALSO\ncp(1), a bc\n");
    expect(".SH\nNext line\ntext \\fBbold\\fR \\f[I]it\\f[] \\f(CWcode\\fP\n.P\nmore  spaces\nand lines\n",
           "Next line\ntext bold it code\n\nmore spaces and lines\n");
    expect("one\n\ntwo\n three\n.br\nfour\n", "one\n\ntwo\nthree\nfour\n");
}

AP_TEST(roff, tagged_paragraphs)
{
    expect(
        ".TP\n.B \\-a\nall\n.TQ\n.B \\-b\nmore\n.TP\n\\(bu\nbullet\n.IP 1. 3\nnumber\n.IP word\ntext\n.IP\nindented\n",
        "-a\nall\n-b\nmore\n\n• bullet\n\n1. number\n\nword\ntext\n\nindented\n");
    expect(".PD 0\n.TP\nx\none\n.TP\nyy\ntwo\n", "x one\nyy\ntwo\n");
}

AP_TEST(roff, escapes)
{
    expect("a\\(:ob\\[u00E9]c\\[char252]d\\N'228'\\e\\&.\\ x\\~y\\0z\\|w\\%\\:\n", "aöbécüdä\\. x y zw\n");
    expect("\\s-1small\\s0 \\s+2big\\s[10]x\\s'5'y\\h'3n'\\v'1'\\w'abc'z\n", "small bigxyz\n");
    expect("don\\(aqt \\[rq]q\\[lq] \\*(lqs\\*(rq \\*R\n", "don't ”q“ “s” ®\n");
    expect("long\\c\nline\\\ncontinued \\\" comment\n", "longlinecontinued\n");
    expect("mail Jane Doe <jane@example.org> and <https://x.example/a@b>\n",
           "mail Jane Doe and <https://x.example/a@b>\n");
}

AP_TEST(roff, east_asian_lines_join_without_space)
{
    expect("日本\n語の\ntext\n文\n", "日本語の text 文\n");
    expect("한국\n말\n", "한국 말\n");
}

AP_TEST(roff, examples_keep_their_lines)
{
    expect("text\n.nf\nint  a;\n\n  b();\n.fi\nmore\n.EX\nx\n.EE\n", "text\nint  a;\n\n  b();\nmore\nx\n");
}

AP_TEST(roff, strings_conditions_and_macros)
{
    expect(".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\nit\\*(Aqs\n", "it's\n");
    expect(".if n yes\n.if t no\n.if !n no\n.ie t \\{\\\nno\n.if n no \\{ no\n.\\}\n.\\}\n.el \\{\\\nelse\n.\\}\nend\n",
           "yes else end\n");
    expect(".if 'a'a' same\n.if 'a'b' no\n.if (1+1)=2 two\n.if 1>2:0 no\n", "same two\n");
    expect(".de XX\nhello \\\\$1, \\\\$2\n..\n.XX big \"wide world\"\n.ig\nignored\n..\nend\n",
           "hello big, wide world end\n");
    expect(".de LOOP\nx\n.LOOP\n..\n.LOOP\n.ds a \\*a\\*a\n\\*a end\n", "x x x x x x x x x x x x x x x x\nend\n");
}

AP_TEST(roff, tables)
{
    expect(".TS\ntab(:) allbox;\nlb lb\nl l.\nName:Value\n_\na:T{\nlong\n.B text\nhere\nT}\nb:c\n.TE\nafter\n",
           "Name  Value\na  long text here\nb  c\n\nafter\n");
}

AP_TEST(roff, links)
{
    expect(".UR https://x.example\nthe page\n.UE .\n.MT a@b.example\nJoe\n.ME ,\n.MR ls 1 .\n",
           "the page <https://x.example>. Joe, ls(1).\n");
    int link = 0;
    struct ap_buf out = {0};
    cr_assert_eq(ap_roff_to_text(".so man1/x.1\n", 13, &out, &link, NULL), AP_OK);
    cr_assert_eq(link, 1);
    cr_assert_eq(out.size, 0);
    ap_buf_free(&out);
}

AP_TEST(roff, mdoc)
{
    expect(".Dd today\n.Dt CAT 1\n.Os\n.Sh NAME\n.Nm cat\n.Nd concatenate\n.Sh SYNOPSIS\n.Nm\n.Op Fl benu\n.Op Ar\n.Sh "
           "DESCRIPTION\nThe\n.Nm\nutility, see\n.Xr ls 1 ,\n.Fn main \"int argc\" argv\n.Bl -tag\n.It Fl "
           "b\nNumber\n.Pq all .\n.El\n.Bd -literal\na  b\n.Ed\n",
           "CAT(1)\n\nNAME\ncat - concatenate\n\nSYNOPSIS\ncat [-benu] [file ...]\n\nDESCRIPTION\nThe cat utility, see "
           "ls(1), main(int argc, argv)\n\n-b\nNumber (all).\n\na  b\n");
}

AP_TEST(roff, any_bytes_end_and_give_valid_utf8)
{
    /* Every construct cut at every byte, and with every byte replaced by a backslash, a quote, a multibyte start. */
    static const char page[] =
        ".TH A 1\n.ds x y\\*x\n.de M\n\\$1\n..\n.M \"\xC3\xA9\"\n.TS\ntab(\xC3\xA9);\nl.\na\xC3\xA9T{\nb\nT}\n.TE\n.if "
        "'\xE2\x82\xAC'\xC3\xA9' \\{ \\h'\xC3\xA9' \\}\n\\[u00E9\\(\xC3\xA9 \\f\xC3\xA9 \\o'\xC3\xA9x'\n.Dd\n.Fn "
        "\xC3\xA9 ( x\n";
    const char with[] = {'\\', '"', '.', '\n', '\'', '{', '[', '('};
    for (size_t cut = 0; cut <= sizeof(page) - 1; cut++)
        for (size_t w = 0; w < sizeof(with); w++) {
            char *copy = malloc(sizeof(page)), *valid = malloc(3 * sizeof(page));
            struct ap_buf out = {0};
            cr_assert(copy && valid);
            memcpy(copy, page, sizeof(page));
            copy[cut] = with[w];
            size_t n = ap_utf8_repair(copy, w ? sizeof(page) - 1 : cut, valid, NULL);
            cr_assert_eq(ap_roff_to_text(valid, n, &out, NULL, NULL), AP_OK);
            cr_assert_eq(ap_utf8_validate(out.data, out.size), out.size, "cut %zu with %zu", cut, w);
            ap_buf_free(&out);
            free(valid);
            free(copy);
        }
}

AP_TEST(roff, hostile_pages_stay_small)
{
    struct ap_buf page = {0}, out = {0};
    ap_buf_text(&page, ".ds a0 xxxxxxxxxxxxxxxx\n");
    for (int i = 1; i < 20; i++) { /* 16 * 8^19 characters if followed */
        char line[128];
        snprintf(line, sizeof(line), ".ds a%x \\*[a%x]\\*[a%x]\\*[a%x]\\*[a%x]\\*[a%x]\\*[a%x]\\*[a%x]\\*[a%x]\n",
                 (unsigned)i, (unsigned)i - 1, (unsigned)i - 1, (unsigned)i - 1, (unsigned)i - 1, (unsigned)i - 1,
                 (unsigned)i - 1, (unsigned)i - 1, (unsigned)i - 1);
        ap_buf_text(&page, line);
    }
    ap_buf_text(&page, "\\*[a13]\n");
    cr_assert_eq(ap_roff_to_text(page.data, page.size, &out, NULL, NULL), AP_OK);
    cr_assert_lt(out.size, (size_t)64 << 20);
    ap_buf_free(&page);
    ap_buf_free(&out);
}
