/* SPDX-License-Identifier: Apache-2.0
 * Fuzz target: link matrices and scenarios. The text is read as both; what is accepted must keep to the limits of its
 * parameters, and every command of a scenario must leave links in which packets arrive no earlier than they were sent.
 */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "wan/link_command.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_error(const struct ap_error *err)
{
    if (err->text[0] == '\0' || memchr(err->text, '\0', sizeof err->text) == NULL)
        abort();
}

/* A few packets over every link. */
static void use(struct ap_link_net *net)
{
    int n = net->n < 8 ? net->n : 8;
    for (int s = 0; s < n; s++)
        for (int d = 0; d < n; d++) {
            struct ap_link_model *l = ap_link_net_link(net, s, d);
            if (ap_link_params_check(&l->params, NULL) != AP_OK || (s == d && l->params.up != 0))
                abort();
            for (int i = 0; i < 3; i++) {
                int64_t at = -1;
                if (ap_link_model_send(l, 1000, 1500, &at) == AP_LINK_PASS && at < 1000)
                    abort();
            }
        }
}

static void scenario(const char *text)
{
    struct ap_link_net *net = NULL;
    struct ap_link_scenario s = {0};
    struct ap_error err = {0};
    if (ap_link_net_parse("src,dst,delay_ms\na,b,1\nb,c,2\n", "m", 1, &net, &err) != AP_OK)
        abort();
    if (ap_link_scenario_parse(net, text, "s", &s, &err) != AP_OK)
        check_error(&err);
    for (int i = 0; i < s.n; i++) {
        if (i > 0 && s.commands[i].at_ns < s.commands[i - 1].at_ns)
            abort();
        if (ap_link_command_apply(net, &s.commands[i], s.commands[i].at_ns, &err) != AP_OK)
            check_error(&err);
    }
    use(net);
    ap_link_scenario_clear(&s);
    ap_link_net_free(net);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ap_link_net *net = NULL;
    struct ap_error err = {0};
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    if (ap_link_net_parse(text, "m", 1, &net, &err) == AP_OK)
        use(net);
    else
        check_error(&err);
    ap_link_net_free(net);
    scenario(text);
    free(text);
    return 0;
}
