#!/bin/sh
# Makes .venv with what `make demo` or `make test` needs, and does nothing where it is there already.
#
#   tools/bootstrap.sh demo    the device, converter and hub, without TensorFlow
#   tools/bootstrap.sh test    all of it, and the development tools
#
# Needs Python 3.10 or newer. System packages come through apt where root or password-less sudo is at hand; else this
# says what is missing and what falls back.
set -eu
cd "$(dirname "$0")/.."
what=${1:?demo or test}
venv=.venv

say() { printf '%s\n' "$*" >&2; }
die() { say "bootstrap: $*"; exit 1; }

# ---------------------------------------------------------------------------------------------- system packages

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then sudo -n "$@"
    else return 1
    fi
}

apt_updated=no
apt_get() {  # PACKAGE...: true when they are installed
    command -v apt-get >/dev/null 2>&1 || return 1
    if [ "$apt_updated" = no ]; then
        as_root apt-get update -qq >&2 || return 1
        apt_updated=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

mosquitto_there() { command -v mosquitto >/dev/null 2>&1 || [ -x /usr/sbin/mosquitto ]; }

if ! mosquitto_there; then
    say "bootstrap: installing mosquitto, the MQTT broker"
    if apt_get mosquitto; then
        # Debian starts it as a service on port 1883; the hub starts its own.
        if [ -d /run/systemd/system ]; then as_root systemctl disable --now mosquitto >/dev/null 2>&1 || true
        else as_root service mosquitto stop >/dev/null 2>&1 || true
        fi
    elif [ "$what" = test ]; then
        if [ -n "${CI:-}" ]; then die "mosquitto could not be installed, and under CI no test may be skipped for it"; fi
        say "bootstrap: mosquitto is missing and cannot be installed from here: tests marked 'broker' will be skipped."
        say "           To run them: sudo apt-get install mosquitto"
    else
        say "bootstrap: mosquitto is missing and cannot be installed from here: the demo falls back to the embedded"
        say "           broker (loopback only). For the real one: sudo apt-get install mosquitto"
    fi
fi

postgresql_there() { command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; }

if [ "$what" = test ] && ! postgresql_there; then
    say "bootstrap: installing postgresql, for the tests of hubs with several processes"
    if apt_get postgresql; then
        # Debian makes a cluster and starts it on port 5432; the tests make and start their own.
        if [ -d /run/systemd/system ]; then as_root systemctl disable --now postgresql >/dev/null 2>&1 || true
        else as_root service postgresql stop >/dev/null 2>&1 || true
        fi
    elif [ -n "${CI:-}" ]; then die "postgresql could not be installed, and under CI no test may be skipped for it"
    else
        say "bootstrap: postgresql is missing and cannot be installed from here: tests marked 'postgres' will be skipped."
        say "           To run them: sudo apt-get install postgresql"
    fi
fi

# Debian's smallest images lack it; the tests make certificates with it.
if [ "$what" = test ] && ! command -v openssl >/dev/null 2>&1; then
    say "bootstrap: installing openssl, for the tests of encrypted connections"
    apt_get openssl || say "bootstrap: openssl is missing and cannot be installed from here: those tests will be skipped"
fi

# The dashboard's tests drive it; Playwright's own download of a browser is not used.
if [ "$what" = test ] && ! command -v chromium >/dev/null 2>&1 && ! command -v google-chrome >/dev/null 2>&1; then
    say "bootstrap: installing chromium, for the tests of the dashboard"
    if ! apt_get chromium; then
        if [ -n "${CI:-}" ]; then die "chromium could not be installed, and under CI no test may be skipped for it"; fi
        say "bootstrap: chromium is missing and cannot be installed from here: tests marked 'browser' will be skipped."
        say "           To run them: sudo apt-get install chromium"
    fi
fi

# A GPU in software, for the tests of the GPU path.
if [ "$what" = test ] && ! tools/swiftshader.sh; then
    if [ -n "${CI:-}" ]; then die "SwiftShader could not be fetched, and under CI no test may be skipped for it"; fi
    say "bootstrap: no package chromium-common can be had from here (Debian has it): the tests on a GPU in software will"
    say "           be skipped"
fi

# ------------------------------------------------------------------------------------------------------- python

python=${PYTHON:-}
if [ -z "$python" ]; then
    for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
fi
[ -n "$python" ] || die "no Python 3.10 to 3.13 found; install one (apt-get install python3), or name it: make PYTHON=..."

digest() { cat pyproject.toml constraints.txt tools/bootstrap.sh | sha256sum | cut -c1-16; }
stamp="$venv/.$what-$(digest)"
if [ -e "$stamp" ] && [ -x "$venv/bin/edge" ] && "$venv/bin/python" -c '' 2>/dev/null; then exit 0; fi

if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -c '' 2>/dev/null; then
    rm -rf "$venv"
    if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        rm -rf "$venv"
        # Debian and Ubuntu keep ensurepip in a package of its own.
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        say "bootstrap: installing python$version-venv"
        apt_get "python$version-venv" || apt_get python3-venv \
            || die "'$python -m venv' does not work; try: sudo apt-get install python$version-venv"
        "$python" -m venv "$venv" || die "'$python -m venv $venv' failed"
    fi
fi

case $what in
    demo) extras=demo ;;
    test) extras=dev ;;
    *) die "unknown: $what" ;;
esac
say "bootstrap: installing adaptive-edge-sdk[$extras] into $venv (the first time takes a few minutes)"
# uv resolves and installs several times faster than pip. Where it cannot be had, or does not get through (it trusts other
# certificates than pip and reads other settings), pip does the same work.
pip="$venv/bin/python -m pip --disable-pip-version-check"
with_uv() {
    $pip install -q -c constraints.txt uv >&2 || return 1
    UV_PYTHON_DOWNLOADS=never "$venv/bin/uv" pip install --python "$venv/bin/python" -q -c constraints.txt -e ".[$extras]" >&2
}
if ! with_uv; then
    say "bootstrap: uv did not manage, pip tries"
    $pip install -q -c constraints.txt -e ".[$extras]" >&2 || die "the installation failed, see above"
fi
rm -f "$venv/.$what-"*
: > "$stamp"
