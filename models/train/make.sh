# For the other scripts here: . make.sh

# make NAME COMMAND…: runs COMMAND unless NAME is there; a killed command leaves no NAME.
make() {
    [ -e "$1" ] && return
    printf '%s  %s\n' "$(date +%T)" "$1" >&2
    local name=$1
    shift
    rm -rf unfinished
    "${@//OUTPUT/unfinished}"
    mv unfinished "$name"
}
