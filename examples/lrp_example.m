% LRP_EXAMPLE  Both equations on a small random network: vectorised (lrp_relevance.m) and as written, entry by entry.
%
% Run it in this folder, in MATLAB or with `octave lrp_example.m`. The loops are the equations letter for letter: slow,
% and the thing to compare your own code with. It stops with an error where the two differ.

if exist('OCTAVE_VERSION', 'builtin'), rand('twister', 1); else, rng(1); end
n = [6 5 4];                                    % inputs, hidden neurons, classes
W = {2 * rand(n(2), n(1)) - 1, 2 * rand(n(3), n(2)) - 1};

x = rand(n(1), 1);                              % a column: one sample
hidden = max(W{1} * x, 0);                      % after the ReLU
logits = W{2} * hidden;                         % before any softmax
acts = {x, hidden};                             % acts{l} is what goes INTO W{l}

[top, class] = max(logits);                     % explain one class: all other entries start at 0
out = zeros(n(3), 1);
out(class) = top;

R = lrp_relevance(W, acts, out);

% z+ through the upper layer, one entry at a time
R_hidden = zeros(n(2), 1);
for i = 1:n(2)
    for j = 1:n(3)
        z = 0;
        for k = 1:n(2)                          % k runs over the layer BELOW, as i does
            z = z + hidden(k) * max(W{2}(j, k), 0);
        end
        if z ~= 0
            R_hidden(i) = R_hidden(i) + hidden(i) * max(W{2}(j, i), 0) / z * out(j);
        end
    end
end

% w^2 into the input: no activation appears anywhere
R_input = zeros(n(1), 1);
for i = 1:n(1)
    for j = 1:n(2)
        z = 0;
        for k = 1:n(1)
            z = z + W{1}(j, k) ^ 2;
        end
        if z ~= 0
            R_input(i) = R_input(i) + W{1}(j, i) ^ 2 / z * R_hidden(j);
        end
    end
end

fprintf('class %d, relevance at the output %.6f, hidden layer %.6f, input %.6f\n', ...
        class, sum(out), sum(R{2}), sum(R{1}));
difference = max([abs(R{2} - R_hidden); abs(R{1} - R_input)]);
fprintf('largest difference between the loops and lrp_relevance: %.1e\n', difference);
assert(difference <= 1e-14 * n(1) * abs(top));
