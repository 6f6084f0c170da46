/* SPDX-License-Identifier: Apache-2.0
 * Names of special characters, as groff_char(7) lists them: those that occur in manual pages. */
#include "config.h"

#include <string.h>

#include "base/utf8.h"
#include "prep/roff_state.h"

static const struct named {
    char name[3];
    const char *text;
} chars[] = {
    {"!=", "≠"},  {"%0", "‰"},  {"'A", "Á"},  {"'C", "Ć"}, {"'E", "É"}, {"'I", "Í"}, {"'O", "Ó"}, {"'U", "Ú"},
    {"'Y", "Ý"},  {"'a", "á"},  {"'c", "ć"},  {"'e", "é"}, {"'i", "í"}, {"'o", "ó"}, {"'u", "ú"}, {"'y", "ý"},
    {"**", "∗"},  {"*A", "Α"},  {"*B", "Β"},  {"*D", "Δ"}, {"*F", "Φ"}, {"*G", "Γ"}, {"*H", "Θ"}, {"*L", "Λ"},
    {"*P", "Π"},  {"*Q", "Ψ"},  {"*S", "Σ"},  {"*W", "Ω"}, {"*a", "α"}, {"*b", "β"}, {"*c", "ξ"}, {"*d", "δ"},
    {"*e", "ε"},  {"*f", "φ"},  {"*g", "γ"},  {"*h", "θ"}, {"*i", "ι"}, {"*k", "κ"}, {"*l", "λ"}, {"*m", "μ"},
    {"*n", "ν"},  {"*o", "ο"},  {"*p", "π"},  {"*q", "ψ"}, {"*r", "ρ"}, {"*s", "σ"}, {"*t", "τ"}, {"*u", "υ"},
    {"*w", "ω"},  {"*x", "χ"},  {"*y", "η"},  {"*z", "ζ"}, {"+-", "±"}, {"+h", "ϑ"}, {",C", "Ç"}, {",c", "ç"},
    {"-+", "∓"},  {"->", "→"},  {"-D", "Ð"},  {"-h", "ℏ"}, {"/L", "Ł"}, {"/O", "Ø"}, {"/l", "ł"}, {"/o", "ø"},
    {"12", "½"},  {"14", "¼"},  {"34", "¾"},  {":A", "Ä"}, {":E", "Ë"}, {":I", "Ï"}, {":O", "Ö"}, {":U", "Ü"},
    {":a", "ä"},  {":e", "ë"},  {":i", "ï"},  {":o", "ö"}, {":u", "ü"}, {":y", "ÿ"}, {"<-", "←"}, {"<=", "≤"},
    {"<>", "↔"},  {"==", "≡"},  {"=~", "≅"},  {">=", "≥"}, {"AE", "Æ"}, {"AN", "∧"}, {"Ah", "ℵ"}, {"Bq", "„"},
    {"Cs", "¤"},  {"Do", "$"},  {"Eu", "€"},  {"Fc", "»"}, {"Fn", "ƒ"}, {"Fo", "«"}, {"Im", "ℑ"}, {"LE", "Œ"},
    {"OE", "Œ"},  {"OR", "∨"},  {"Of", "ª"},  {"Om", "º"}, {"Po", "£"}, {"Re", "ℜ"}, {"S1", "¹"}, {"S2", "²"},
    {"S3", "³"},  {"Sd", "ð"},  {"TP", "Þ"},  {"Tp", "þ"}, {"Ye", "¥"}, {"^A", "Â"}, {"^E", "Ê"}, {"^I", "Î"},
    {"^O", "Ô"},  {"^U", "Û"},  {"^a", "â"},  {"^e", "ê"}, {"^i", "î"}, {"^o", "ô"}, {"^u", "û"}, {"`A", "À"},
    {"`E", "È"},  {"`I", "Ì"},  {"`O", "Ò"},  {"`U", "Ù"}, {"`a", "à"}, {"`e", "è"}, {"`i", "ì"}, {"`o", "ò"},
    {"`u", "ù"},  {"a^", "^"},  {"aa", "´"},  {"ab", "˘"}, {"ac", "¸"}, {"ad", "¨"}, {"ae", "æ"}, {"ah", "ˇ"},
    {"an", "—"},  {"ao", "˚"},  {"ap", "∼"},  {"aq", "'"}, {"at", "@"}, {"a~", "~"}, {"ba", "|"}, {"bb", "¦"},
    {"bq", "‚"},  {"br", "│"},  {"bu", "•"},  {"bv", "|"}, {"ca", "∩"}, {"ci", "○"}, {"co", "©"}, {"cq", "’"},
    {"ct", "¢"},  {"cu", "∪"},  {"dA", "⇓"},  {"da", "↓"}, {"dd", "‡"}, {"de", "°"}, {"dg", "†"}, {"di", "÷"},
    {"dq", "\""}, {"em", "—"},  {"en", "–"},  {"eq", "="}, {"es", "∅"}, {"eu", "€"}, {"fa", "∀"}, {"fc", "›"},
    {"ff", "ff"}, {"fi", "fi"}, {"fl", "fl"}, {"fm", "′"}, {"fo", "‹"}, {"ga", "`"}, {"gr", "∇"}, {"hA", "⇔"},
    {"ha", "^"},  {"hy", "-"},  {"ib", "⊆"},  {"if", "∞"}, {"ij", "ĳ"}, {"im", "⊨"}, {"in", "∈"}, {"ip", "⊇"},
    {"is", "∫"},  {"lA", "⇐"},  {"lB", "["},  {"lC", "{"}, {"lh", "☜"}, {"lq", "“"}, {"lz", "◊"}, {"mc", "µ"},
    {"mi", "−"},  {"mo", "∈"},  {"mu", "×"},  {"nb", "⊄"}, {"nc", "⊅"}, {"ne", "≢"}, {"no", "¬"}, {"oA", "Å"},
    {"oa", "å"},  {"oe", "œ"},  {"oq", "‘"},  {"or", "|"}, {"pd", "∂"}, {"pl", "+"}, {"pp", "⊥"}, {"ps", "¶"},
    {"pt", "∝"},  {"rA", "⇒"},  {"rB", "]"},  {"rC", "}"}, {"rg", "®"}, {"rh", "☞"}, {"rn", "‾"}, {"rq", "”"},
    {"rs", "\\"}, {"ru", "_"},  {"sb", "⊂"},  {"sc", "§"}, {"sd", "″"}, {"sh", "#"}, {"sl", "/"}, {"sp", "⊃"},
    {"sq", "□"},  {"sr", "√"},  {"ss", "ß"},  {"te", "∃"}, {"tf", "∴"}, {"ti", "~"}, {"tm", "™"}, {"ts", "ς"},
    {"uA", "⇑"},  {"ua", "↑"},  {"ul", "_"},  {"vA", "⇕"}, {"va", "↕"}, {"vc", "č"}, {"vC", "Č"}, {"vs", "š"},
    {"vz", "ž"},  {"~=", "≈"},  {"~A", "Ã"},  {"~N", "Ñ"}, {"~O", "Õ"}, {"~a", "ã"}, {"~n", "ñ"}, {"~o", "õ"},
    {"~~", "≈"},
};

/* uXXXX, uXXXX_YYYY (a base character and what combines with it: the base is followed by them). */
static const char *by_code(struct roff_span name, char scratch[8])
{
    size_t used = 0;
    for (size_t i = 1; i < name.size;) {
        uint32_t code = 0;
        int digits = 0;
        for (; i < name.size && name.text[i] != '_' && digits < 7; i++, digits++) {
            const char *hex = "0123456789ABCDEF", *at = name.text[i] ? strchr(hex, name.text[i]) : NULL;
            if (!at)
                return NULL;
            code = code << 4 | (uint32_t)(at - hex);
        }
        char one[4];
        int n = ap_utf8_encode(code, one);
        if (digits < 4 || n == 0 || code < 0x20 || used + (size_t)n >= 8)
            return NULL;
        memcpy(scratch + used, one, (size_t)n);
        used += (size_t)n;
        i++; /* the underscore */
    }
    scratch[used] = '\0';
    return used ? scratch : NULL;
}

/* charNNN and \N'NNN': a byte of Latin-1. */
static const char *by_number(struct roff_span digits, char scratch[8])
{
    uint32_t code = 0;
    if (digits.size == 0 || digits.size > 3)
        return NULL;
    for (size_t i = 0; i < digits.size; i++) {
        if (digits.text[i] < '0' || digits.text[i] > '9')
            return NULL;
        code = 10 * code + (uint32_t)(digits.text[i] - '0');
    }
    if (code < 0x20 || (code >= 0x7F && code < 0xA0) || code > 0xFF)
        return NULL;
    scratch[ap_utf8_encode(code, scratch)] = '\0';
    return scratch;
}

const char *roff_char(struct roff_span name, char scratch[8])
{
    if (name.size == 2) {
        for (size_t i = 0; i < sizeof(chars) / sizeof(*chars); i++)
            if (name.text[0] == chars[i].name[0] && name.text[1] == chars[i].name[1])
                return chars[i].text;
    }
    if (name.size > 4 && name.text[0] == 'u')
        return by_code(name, scratch);
    if (name.size > 4 && memcmp(name.text, "char", 4) == 0)
        return by_number((struct roff_span){name.text + 4, name.size - 4}, scratch);
    if (name.size > 2 && memcmp(name.text, "N'", 2) == 0)
        return by_number((struct roff_span){name.text + 2, name.size - 2}, scratch);
    return NULL;
}
