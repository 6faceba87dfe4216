/* libssh as a client: exit status and both directions.
 * Arguments: host port login key known-hosts source uploaded downloaded */

#include <libssh/libssh.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ssh_session session;

static void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, session ? ssh_get_error(session) : "");
    exit(1);
}

/* Runs a command; `in` goes to it, what it says goes to `out`. Returns its exit status. */
static int run(const char *command, FILE *in, FILE *out)
{
    static char block[32768];
    ssh_channel channel = ssh_channel_new(session);
    int got;

    if (channel == NULL || ssh_channel_open_session(channel) != SSH_OK) fail("open");
    if (ssh_channel_request_exec(channel, command) != SSH_OK) fail("exec");
    while (in != NULL) {
        size_t len = fread(block, 1, sizeof block, in);
        if (len == 0) break;
        if (ssh_channel_write(channel, block, (uint32_t)len) != (int)len) fail("write");
    }
    if (ssh_channel_send_eof(channel) != SSH_OK) fail("eof");
    while ((got = ssh_channel_read(channel, block, sizeof block, 0)) > 0) {
        if (out != NULL && fwrite(block, 1, (size_t)got, out) != (size_t)got) fail("file");
    }
    if (got < 0) fail("read");
    got = ssh_channel_get_exit_status(channel);
    ssh_channel_close(channel);
    ssh_channel_free(channel);
    return got;
}

int main(int argc, char **argv)
{
    char command[4096];
    unsigned int port;
    int process_config = 0;
    ssh_key key = NULL;
    FILE *in, *out;

    if (argc != 9) return 2;
    port = (unsigned int)atoi(argv[2]);
    session = ssh_new();
    ssh_options_set(session, SSH_OPTIONS_PROCESS_CONFIG, &process_config);
    ssh_options_set(session, SSH_OPTIONS_HOST, argv[1]);
    ssh_options_set(session, SSH_OPTIONS_PORT, &port);
    ssh_options_set(session, SSH_OPTIONS_USER, argv[3]);
    ssh_options_set(session, SSH_OPTIONS_KNOWNHOSTS, argv[5]);
    if (ssh_connect(session) != SSH_OK) fail("connect");
    if (ssh_session_is_known_server(session) != SSH_KNOWN_HOSTS_OK) fail("host key");
    if (ssh_pki_import_privkey_file(argv[4], NULL, NULL, NULL, &key) != SSH_OK) fail("key");
    if (ssh_userauth_try_publickey(session, NULL, key) != SSH_AUTH_SUCCESS) fail("offer");
    if (ssh_userauth_publickey(session, NULL, key) != SSH_AUTH_SUCCESS) fail("login");

    if (run("exit 7", NULL, NULL) != 7) fail("exit status");
    if ((in = fopen(argv[6], "rb")) == NULL) fail(argv[6]);
    snprintf(command, sizeof command, "cat > %s", argv[7]);
    if (run(command, in, NULL) != 0) fail("upload");
    fclose(in);
    if ((out = fopen(argv[8], "wb")) == NULL) fail(argv[8]);
    snprintf(command, sizeof command, "cat %s", argv[6]);
    if (run(command, NULL, out) != 0) fail("download");
    fclose(out);
    ssh_disconnect(session);
    ssh_free(session);
    ssh_key_free(key);
    puts("done");
    return 0;
}
