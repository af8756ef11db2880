% PYLRP_EXAMPLE  The question's equations as loops beside one call of the compiled function.
%
% pylrp_make compiles it first; then addpath build/matlab. It stops with an error where the two differ.

if exist('OCTAVE_VERSION', 'builtin'), rand('twister', 1); else, rng(1); end
n = [20 12 4];
nn.layers = {struct('W', 2 * rand(n(2), n(1)) - 1, 'b', rand(n(2), 1) - 0.5), ...
             struct('W', 2 * rand(n(3), n(2)) - 1, 'b', zeros(n(3), 1))};
x = rand(n(1), 1);
nn.layers{1}.output = max(nn.layers{1}.W * x + nn.layers{1}.b, 0);
nn.layers{2}.output = nn.layers{2}.W * nn.layers{1}.output + nn.layers{2}.b;
[top, class] = max(nn.layers{2}.output);
out = zeros(n(3), 1);
out(class) = top;

% The call: z+ above, w^2 at the input.
[R, layers, ledger] = pylrp_relevance(nn, x, out);

% The question's loop, with W_ij from input i to neuron j: V = max(W, 0)' there.
a = nn.layers{1}.output;
V = max(nn.layers{2}.W, 0)';
R_hidden = zeros(n(2), 1);
for i = 1:n(2)
    for j = 1:n(3)
        z = 0;
        for k = 1:n(2), z = z + a(k) * V(k, j); end
        if z ~= 0, R_hidden(i) = R_hidden(i) + a(i) * V(i, j) / z * out(j); end
    end
end
V = nn.layers{1}.W' .^ 2;
R_input = zeros(n(1), 1);
for i = 1:n(1)
    for j = 1:n(2)
        z = 0;
        for k = 1:n(1), z = z + V(k, j); end
        if z ~= 0, R_input(i) = R_input(i) + V(i, j) / z * R_hidden(j); end
    end
end

difference = max([abs(layers{2} - R_hidden); abs(R - R_input)]);
fprintf('largest difference between the loops and pylrp_relevance: %.1e\n', difference);
assert(difference <= 1e-13 * abs(top));
fprintf('layer 2: %.4f arrive, %.4f go on; layer 1: %.4f arrive, %.4f go on\n', ledger(2).incoming, ...
        ledger(2).outgoing, ledger(1).incoming, ledger(1).outgoing);

% Other rules, and the biases.
R = pylrp_relevance(nn, x, out, 'rules', {{'zbox', 0, 1}, {'epsilon', 0.01}}, 'biases', true);
fprintf('z-box at the input, epsilon above: sum %.4f of %.4f\n', sum(R), top);
