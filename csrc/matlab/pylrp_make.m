function folder = pylrp_make(library, flags)
% PYLRP_MAKE  Compile pylrp_relevance and put it, with all other functions, into build/matlab.
%
%   pylrp_make                   compile everything: a minute or two, a C++17 compiler is all it needs
%   pylrp_make(library)          link the static libraries in that folder (`make mex` does, with CMake)
%   pylrp_make('', flags)        other compiler flags than '-O3'
%   folder = pylrp_make(...)     where it is: addpath(folder)
%
% In MATLAB and in Octave. The compiler is the one that `mex -setup C++` has chosen, or Octave's own (mkoctfile); it
% must be GCC or Clang, on Windows MinGW. The C++ runtime is linked statically, so MATLAB's own does not matter.

if nargin < 1, library = ''; end
if nargin < 2, flags = '-O3'; end
here = fileparts(mfilename('fullpath'));
root = fileparts(fileparts(here));
folder = fullfile(root, 'build', 'matlab');
if ~exist(folder, 'dir'), mkdir(folder); end
if isempty(library)
    objects = compile_core(root, fullfile(root, 'build', 'matlab-objects'), flags);
else
    objects = {fullfile(library, 'libpylrp_capi.a'), fullfile(library, 'libpylrp_core.a')};
end
target = fullfile(folder, ['pylrp_mex.' mexext]);
link_mex(root, fullfile(here, 'pylrp_mex.c'), objects, target);
copies = {fullfile(here, 'pylrp_relevance.m'), fullfile(root, 'examples', 'lrp_relevance.m'), ...
          fullfile(root, 'examples', 'lrp_example.m'), fullfile(root, 'examples', 'pylrp_example.m')};
for i = 1:numel(copies)
    copyfile(copies{i}, folder);
end
if nargout < 1
    fprintf('pylrp_relevance is in %s: addpath(''%s'')\n', folder, folder);
    clear folder
end
end


function objects = compile_core(root, folder, flags)
% The dense part of the core; a file for each instruction set, the CPU is asked at run time.
if ~exist(folder, 'dir'), mkdir(folder); end
sources = {'kernels/dispatch.cpp', 'kernels/isa_baseline.cpp', 'engine/ledger.cpp', 'engine/chain.cpp', ...
           'products/lists.cpp'};
for part = {'base', 'capi', 'rules', 'layers/dense'}
    found = dir(fullfile(root, 'csrc', part{1}, '*.cpp'));
    sources = [sources, strcat([part{1} '/'], {found.name})];
end
extra = repmat({''}, 1, numel(sources));
if is_x86()
    sources = [sources, {'kernels/isa_avx2.cpp', 'kernels/isa_avx512.cpp'}];
    extra = [extra, {'-mavx2 -mfma', ['-mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma ' ...
                                      '-mprefer-vector-width=512']}];
end
objects = cell(1, numel(sources));
commands = {};
for i = 1:numel(sources)
    source = fullfile(root, 'csrc', sources{i});
    objects{i} = fullfile(folder, strrep(strrep(sources{i}, '/', '_'), '.cpp', '.o'));
    all_flags = strtrim([flags ' -std=c++17 -fPIC -fvisibility=hidden -ffp-contract=fast -Wno-psabi ' extra{i}]);
    if is_octave()
        commands{end + 1} = sprintf('%s -c %s -pthread -I"%s" "%s" -o "%s"', mkoctfile('-p', 'CXX'), all_flags, ...
                                    fullfile(root, 'csrc'), source, objects{i});
    else  % untried: there is no MATLAB where this was written
        [~, name] = fileparts(source);
        mex('-c', ['CXXFLAGS=$CXXFLAGS ' all_flags], ['-I' fullfile(root, 'csrc')], '-outdir', folder, source);
        made = dir(fullfile(folder, [name '.o*']));
        movefile(fullfile(folder, made(1).name), objects{i});
    end
end
run_all(commands);
end


function link_mex(root, source, objects, target)
include = ['-I' fullfile(root, 'csrc', 'capi')];
if is_octave()
    was = getenv('LDFLAGS');
    restore = onCleanup(@() setenv('LDFLAGS', was));
    exports = fullfile(root, 'csrc', 'matlab', 'exports.map');
    setenv('LDFLAGS', ['-static-libgcc -pthread -Wl,--version-script=' exports]);
    % -l:libstdc++.a and not -static-libstdc++: mkoctfile links C files with the C compiler.
    [text, status] = mkoctfile('--mex', include, source, objects{:}, '-l:libstdc++.a', '-lpthread', '-ldl', '-o', target);
    if status ~= 0
        error('pylrp:make', 'pylrp_make: linking failed:\n%s', text);
    end
elseif ispc  % untried, as is the next
    mex(include, 'LDFLAGS=$LDFLAGS -static-libgcc -static-libstdc++', '-output', target, source, objects{:});
else
    mex(include, 'LDFLAGS=$LDFLAGS -static-libgcc', '-output', target, source, objects{:}, '-l:libstdc++.a', '-ldl');
end
end


function run_all(commands)
% So many at a time as there are processors; what the compiler says goes to the terminal.
while ~isempty(commands)
    now = commands(1:min(end, nproc()));
    commands(1:numel(now)) = [];
    started = cellfun(@(command) system(command, false, 'async'), now);
    for i = 1:numel(started)
        [~, status] = waitpid(started(i));
        if status ~= 0
            error('pylrp:make', 'pylrp_make: this failed, see above:\n%s', now{i});
        end
    end
end
end


function yes = is_octave()
yes = exist('OCTAVE_VERSION', 'builtin') ~= 0;
end


function yes = is_x86()
if is_octave()
    yes = ~isempty(regexp(computer(), '^(x86_64|amd64)', 'once'));
else
    yes = any(strcmp(computer('arch'), {'glnxa64', 'maci64', 'win64'}));
end
end
